package ondisk

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var (
	must     = testkit.Must
	open     = systest.Folder
	refusing = systest.While
)

// both are the names of a mount without userxattr.
var both Names
