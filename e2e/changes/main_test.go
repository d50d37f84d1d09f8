package changes

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// tools are the programs that apply layers, and the Debian package of each.
var tools = map[string]string{"buildah": "buildah", "skopeo": "skopeo"}

func TestMain(m *testing.M) { harness.Main(m, harness.Suite{Tools: tools}) }
