package archtest

import (
	"slices"
	"strings"
)

const module = "github.com/fuse-overlay/fuse-overlay"

// A ban forbids an import in all rooms but a few.
type ban struct {
	// imports names a package and, where it ends in "/...", all below it.
	imports string
	// except are the rooms, relative to the module, that may import it; "cmd/..." is everything below
	// cmd.
	except []string
	// inTests lists further rooms whose tests may.
	inTests []string
	reason  string
}

var bans = []ban{
	{
		imports: "github.com/hanwen/go-fuse/...",
		except:  []string{"fs", "fs/conn/...", "cmd/...", "internal/view", "e2e/disklog"},
		inTests: []string{"e2e/...", "internal/podman"},
		reason:  "only fs and fs/conn talk to the kernel, and internal/view calls fs as it does; a layer or a copy-up that knows a request cannot be tested without a mount",
	},
	{
		imports: "go.uber.org/zap/...",
		except:  []string{"fs", "fs/conn", "cmd/...", "internal/layerconfig"},
		inTests: []string{"internal/view", "internal/changes", "internal/check", "internal/merge", "internal/ocilayer", "internal/vacuum"},
		reason:  "rooms below fs return errors; fs decides what is worth a line in the log, once",
	},
	{
		imports: "github.com/pkg/xattr",
		except:  []string{"internal/sys"},
		reason:  "extended attributes are system calls, and every system call goes through the fault seam",
	},
	{
		imports: "syscall",
		except:  []string{"fs/...", "cmd/...", "internal/host", "internal/sandbox", "internal/tryout", "internal/conformance", "bench", "e2e/disklog", "e2e/harness"},
		inTests: []string{"..."},
		reason:  "golang.org/x/sys/unix is the one spelling of an errno; fs needs syscall's types for go-fuse alone",
	},
	{
		imports: "os",
		except:  []string{"fs/...", "cmd/...", "internal/sys", "internal/host", "internal/sandbox", "internal/testkit", "internal/podman", "internal/conformance", "internal/tryout", "internal/unpack", "bench/...", "e2e/..."},
		inTests: []string{"..."},
		reason:  osReason,
	},
	{
		imports: module + "/internal/testkit/...",
		except:  []string{"internal/testkit/systest", "e2e/harness"},
		inTests: []string{"..."},
		reason:  "it is made for tests, and ends the program where a test would fail",
	},
	{
		imports: "github.com/spf13/...",
		except:  []string{"cmd/fuse-overlay-commands"},
		reason:  "a mount must not pay for the start of this library, and the work of a command is tested without it",
	},
	{
		imports: "github.com/schollz/...",
		except:  []string{"internal/progress", "bench"},
		reason:  "one room decides when and how a bar is shown",
	},
	{
		imports: "github.com/opencontainers/umoci/...",
		except:  []string{"internal/unpack"},
		reason:  "umoci makes system calls by paths: only a directory that no other process knows may be reached so",
	},
	{
		imports: "unsafe",
		except:  []string{"fs/conn/wire", "fs/journal", "internal/sandbox", "internal/sys", "internal/host", "e2e/harness"},
		inTests: []string{"fs/conn", "e2e/..."},
		reason:  "raw memory is met only where the kernel is, in system calls and in replies, and in the memory that outlives the process",
	},
}

// allowed lists, for each room, the rooms of the module it may import. Nothing points up.
var allowed = map[string][]string{
	"internal/host":             {},
	"internal/sys":              {"internal/host"},
	"internal/lock":             {},
	"internal/sandbox":          {},
	"internal/commands":         {},
	"internal/control":          {"internal/host"},
	"internal/message":          {},
	"internal/mountargs":        {"internal/commands"},
	"internal/mounts":           {"internal/commands", "internal/control", "internal/host", "internal/mountargs", "internal/sys"},
	"internal/progress":         {},
	"internal/quote":            {},
	"internal/view":             {"fs", "internal/sys"},
	"internal/layerconfig":      {"fs", "internal/mountargs", "internal/owner"},
	"internal/changes":          {"fs", "whiteout", "internal/ondisk", "internal/quote", "internal/sys", "internal/view"},
	"internal/ocilayer":         {"whiteout", "internal/changes", "internal/quote", "internal/view"},
	"internal/stats":            {"internal/control", "internal/host", "internal/mounts"},
	"internal/check":            {"copyup", "fs", "fs/stack", "whiteout", "internal/ondisk", "internal/quote", "internal/sys", "internal/view"},
	"internal/merge":            {"copyup", "fs", "fs/stack", "whiteout", "internal/changes", "internal/host", "internal/ondisk", "internal/owner", "internal/quote", "internal/sys", "internal/view"},
	"internal/vacuum":           {"fs", "fs/stack", "whiteout", "internal/changes", "internal/ondisk", "internal/quote", "internal/sys", "internal/view"},
	"internal/tryout":           {"internal/host", "internal/mounts", "internal/ondisk", "internal/sys"},
	"internal/unpack":           {"copyup", "whiteout", "internal/host", "internal/ondisk", "internal/quote", "internal/sys"},
	"internal/version":          {},
	"internal/testkit":          {},
	"internal/testkit/systest":  {"internal/sys", "internal/testkit"},
	"internal/podman":           {},
	"internal/conformance":      {"internal/host"},
	"inodecache":                {"internal/lock"},
	"internal/ondisk":           {"internal/sys"},
	"internal/owner":            {"internal/ondisk", "internal/sys"},
	"copyup":                    {"internal/host", "internal/ondisk", "internal/owner", "internal/sys"},
	"whiteout":                  {"internal/ondisk", "internal/sys"},
	"fs/stack":                  {"copyup", "whiteout", "internal/host", "internal/ondisk", "internal/owner", "internal/sys"},
	"fs/conn/wire":              {},
	"fs/conn/readers":           {"internal/lock"},
	"fs/conn/lossprobe":         {"fs/conn/wire", "internal/host"},
	"fs/conn/features":          {"fs/conn/wire", "internal/host", "internal/sys"},
	"fs/journal":                {"internal/lock"},
	"fs/conn":                   {"fs/conn/...", "fs/journal", "internal/host"},
	"fs":                        {"fs/conn/...", "fs/journal", "fs/stack", "copyup", "whiteout", "inodecache", "internal/host", "internal/lock", "internal/ondisk", "internal/owner", "internal/sys"},
	"cmd/fuse-overlay":          {"fs", "fs/conn", "fs/conn/lossprobe", "fs/journal", "internal/commands", "internal/control", "internal/host", "internal/lock", "internal/message", "internal/mountargs", "internal/owner", "internal/sandbox", "internal/sys", "internal/version"},
	"cmd/fuse-overlay-commands": {"fs", "fs/conn/features", "internal/changes", "internal/check", "internal/commands", "internal/control", "internal/host", "internal/layerconfig", "internal/merge", "internal/message", "internal/mountargs", "internal/mounts", "internal/ocilayer", "internal/progress", "internal/quote", "internal/stats", "internal/tryout", "internal/unpack", "internal/vacuum", "internal/version"},
	"bench/...":                 {"bench/...", "internal/podman"},
	"e2e/...":                   {"e2e/...", "internal/podman", "internal/testkit"},
}

var reasons = map[string]string{
	"internal/host":             "what the kernel reports of processes, mounts and CPUs does not depend on layers",
	"internal/sys":              "the gate to layers decides nothing: it needs the mount table and the namespaces of the host, no more",
	"internal/sandbox":          "what a process gives up does not depend on what it serves",
	"internal/lock":             "the lock order does not depend on what the locks guard",
	"internal/commands":         "the names of the commands are the same for both programs",
	"internal/control":          "a client asks a daemon by its socket: it knows what the daemon replies, and no layer",
	"internal/message":          "a line of text does not depend on what it reports",
	"internal/mountargs":        "how a command line is split does not depend on what its options mean",
	"internal/mounts":           "the mounts of a machine do not depend on the command line that asks for them",
	"internal/progress":         "how far a command is does not depend on what it does",
	"internal/quote":            "how a path is written does not depend on what it names",
	"internal/view":             "a view shows what fs serves, and knows no rule of the format",
	"internal/layerconfig":      "what the options of a mount mean for its layers does not depend on what reads them",
	"internal/changes":          "what has changed is what two views show, and which names the upper has",
	"internal/ocilayer":         "a layer is written of changes, however they were found",
	"internal/stats":            "what is shown of a daemon's numbers does not depend on how they were counted",
	"internal/check":            "what is damaged does not depend on how it is printed",
	"internal/merge":            "what is merged is what two views show, and copyup and whiteout make the objects",
	"internal/vacuum":           "what adds nothing is what two views show alike",
	"internal/tryout":           "the copy of a system is made of mounts, whatever changes in it",
	"internal/unpack":           "a layer that is unpacked is not merged with others",
	"internal/version":          "the version is that of the build",
	"internal/testkit":          "what a test compares with must not depend on what it tests",
	"internal/testkit/systest":  "it opens layers and uses the fault seam, and needs no other room for that",
	"internal/conformance":      "the suites of others test the built program through a mount point",
	"internal/podman":           "what runs the program knows nothing of it",
	"inodecache":                "identity and caching are pure data structures: the standard library and ranked mutexes, nothing else",
	"internal/ondisk":           "what an attribute of the overlay says does not depend on what is made of it",
	"internal/owner":            "owner and mode of an object do not depend on its name, nor on the client",
	"copyup":                    "how an object gets up whole does not depend on whiteouts, layers or nodes",
	"whiteout":                  "how absence is written does not depend on copy-up, layers or nodes",
	"fs/stack":                  "what a name means does not depend on the client, nor on nodes and locks",
	"fs/journal":                "what outlives a process does not depend on what nodes and requests are",
	"fs/conn/wire":              "how messages lie in memory depends on the kernel alone",
	"fs/conn/readers":           "which thread waits for a request does not depend on the request",
	"fs/conn/features":          "what a kernel offers is found by trying, not by the options of a mount",
	"fs/conn/lossprobe":         "the probe examines the kernel, no layer",
	"fs/conn":                   "the connection serves any file system: it does not know nodes, layers and what names mean",
	"fs":                        "nodes know the rooms below them, not the command line",
	"cmd/fuse-overlay":          "the command knows options and processes, not layers",
	"cmd/fuse-overlay-commands": "arguments and output of a command are here, its work is in a room that does not know the command line",
	"bench/...":                 "the bench measures the built program through a mount point, as every other candidate",
	"e2e/...":                   "the tests use the built program through a mount point",
}

// onlyStandard are the rooms that import the standard library, internal/lock, and nothing else.
var onlyStandard = []string{"inodecache"}

// A callRule allows a room to refer to functions of one package. Types and constants are free.
type callRule struct {
	imports string
	room    string
	// functions are the names allowed; nil is all.
	functions []string
}

var callRules = []callRule{
	{imports: unixPath, room: "internal/host"},
	{imports: unixPath, room: "internal/sys"},
	{imports: syscallPath, room: "internal/host"},
	// The process alone.
	{imports: unixPath, room: "internal/sandbox"},
	{imports: syscallPath, room: "internal/sandbox"},
	{imports: osPath, room: "internal/sandbox", functions: []string{"Getpid"}},
	{imports: unixPath, room: "cmd/...", functions: processControl},
	{imports: syscallPath, room: "cmd/...", functions: processControl},
	{imports: unixPath, room: "...", functions: arithmetic},

	// Trees of tests, by plain paths: what is seen must not depend on what is tested.
	{imports: unixPath, room: "internal/testkit"},
	{imports: unixPath, room: "e2e/..."},
	{imports: syscallPath, room: "e2e/..."},
	{imports: osPath, room: "internal/testkit"},

	{imports: osPath, room: "cmd/..."},
	{imports: osPath, room: "bench/..."},
	// The calls of a container engine on a mount.
	{imports: unixPath, room: "bench", functions: []string{"Lgetxattr", "Llistxattr", "Lstat"}},
	{imports: osPath, room: "internal/podman"},
	{imports: osPath, room: "e2e/..."},
	{imports: osPath, room: "internal/conformance"},
	{imports: syscallPath, room: "internal/conformance"},
	{imports: osPath, room: "internal/host"},
	{imports: osPath, room: "internal/sys"},
	// The user of the process, and its environment: nothing of a layer.
	{imports: osPath, room: "fs/...", functions: []string{"Getegid", "Getenv", "Geteuid"}},
	// At mount, by the trusted paths of the command line, before there is a sys.Dir.
	{imports: osPath, room: "fs/stack", functions: []string{"Mkdir", "Remove", "Stat"}},
	// The temporary directory of the overlays, which holds no layer yet or no longer.
	{imports: osPath, room: "internal/tryout", functions: []string{"Getwd", "Lstat", "Mkdir", "MkdirTemp", "NewFile", "Pipe", "Remove", "RemoveAll", "Rename", "Stat"}},
	{imports: syscallPath, room: "internal/tryout", functions: []string{"CloseOnExec"}},
	// The target of a layer and the staging directory beside it, before there is a sys.Dir.
	{imports: osPath, room: "internal/unpack", functions: []string{"Lstat", "MkdirTemp", "ReadDir", "Remove"}},
}

// processControl are the calls by which the command controls its own process and its inherited
// descriptors, and checks its mount. None of them reaches a layer, so none needs the fault seam.
var processControl = []string{
	"CloseOnExec", "Dup2", "Dup3", "Exec", "Fstat", "Getegid", "Geteuid", "Getgid", "Getpid", "Getppid", "Getrlimit",
	"Getuid", "Kill", "Prctl", "Setrlimit", "Setsid", "Stat", "Statfs", "Umask",
}

// arithmetic is done with the arguments of system calls: no call is made.
var arithmetic = []string{
	"BytePtrFromString", "ByteSliceFromString", "ByteSliceToString", "ErrnoName", "Major", "Minor", "Mkdev",
	"NsecToTimespec", "SignalName", "TimespecToNsec",
}

const (
	unixPath    = "golang.org/x/sys/unix"
	syscallPath = "syscall"
	osPath      = "os"

	callReason = "system calls are made by internal/sys and internal/host alone: the types of sys prove that no path leaves a layer, " +
		"and its fault seam fails each call in turn"
	osReason = "package os takes paths, follows symlinks and bypasses the fault seam; layers are reached by sys.Dir alone"
)

// callReasons are the packages whose functions are watched, and why.
var callReasons = map[string]string{unixPath: callReason, syscallPath: callReason, osPath: osReason}

// match reports whether a path is the pattern, or below it if the pattern ends in "...".
func match(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == tree || strings.HasPrefix(path, tree+"/")
	}
	return pattern == path
}

func matchAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, path) })
}
