package tryout

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Tools: map[string]string{
		"apt-get": "apt", "dpkg-deb": "dpkg", "make": "make", "/usr/bin/pip3": "python3-pip", "script": "bsdutils",
	}})
}
