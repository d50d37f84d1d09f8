package faults

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// cutState is the tree after some steps.
type cutState struct {
	lines map[string]string
	// unsynced are the files with data that was not synced, by their paths.
	unsynced map[string]unsyncedFile
}

// unsyncedFile is the content of a file before and after the writes since its last fsync.
type unsyncedFile struct{ before, after string }

// may reports whether a power cut may leave this content: of each byte the old or the new one, of
// the size that was or of any up to the new one, and zero where either has no byte.
func (u unsyncedFile) may(got string) bool {
	if len(got) < min(len(u.before), len(u.after)) || len(got) > max(len(u.before), len(u.after)) {
		return false
	}
	for i := range len(got) {
		isOld := i < len(u.before) && got[i] == u.before[i]
		isNew := i < len(u.after) && got[i] == u.after[i]
		if !isOld && !isNew && (got[i] != 0 || i < min(len(u.before), len(u.after))) {
			return false
		}
	}
	return true
}

// cutView is what a power cut must keep.
func cutView(nlink bool) harness.View {
	return harness.View{Mode: true, Owner: true, Nlink: nlink, Xattrs: true, Also: func(_ string, st *unix.Stat_t) string {
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return ""
		}
		return " mtime " + harness.TimeClass(st.Mtim)
	}}
}

// statesOf makes the steps in a plain folder, and returns the tree before them and after each.
func statesOf(t *testing.T, root string, steps []cutStep, v harness.View) []cutState {
	t.Helper()
	unsynced := map[uint64]string{} // by inode: the content at its last fsync
	states := []cutState{stateOf(t, root, unsynced, v)}
	for _, step := range steps {
		before := ""
		if step.writes != "" {
			text, err := os.ReadFile(filepath.Join(root, step.writes))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			before = string(text)
		}
		if err := step.do(root); err != nil {
			t.Fatalf("%s in a plain folder: %v", step.what, err)
		}
		if step.syncs != "" {
			delete(unsynced, harness.Lstat(t, filepath.Join(root, step.syncs)).Ino)
		}
		if step.writes != "" {
			inode := harness.Lstat(t, filepath.Join(root, step.writes)).Ino
			if _, already := unsynced[inode]; !already {
				unsynced[inode] = before
			}
		}
		states = append(states, stateOf(t, root, unsynced, v))
	}
	return states
}

// stateOf returns the state of the tree at root. It removes the inodes from unsynced that are gone:
// another object may get their numbers.
func stateOf(t *testing.T, root string, unsynced map[uint64]string, v harness.View) cutState {
	t.Helper()
	s, present := cutState{unsynced: map[string]unsyncedFile{}}, map[uint64]bool{}
	also := v.Also
	v.Also = func(rel string, st *unix.Stat_t) string {
		present[st.Ino] = true
		if before, ok := unsynced[st.Ino]; ok {
			text, err := os.ReadFile(filepath.Join(root, rel))
			harness.Check(t, err)
			s.unsynced[rel] = unsyncedFile{before, string(text)}
		}
		return also(rel, st)
	}
	var err error
	s.lines, err = harness.Snapshot(root, v)
	harness.Check(t, err)
	maps.DeleteFunc(unsynced, func(inode uint64, _ string) bool { return !present[inode] })
	return s
}

var mtimeWords = regexp.MustCompile(` mtime \S+`)

const newMtime = " mtime now" // as cutView shows it

func withoutMtime(line string) string { return mtimeWords.ReplaceAllString(line, "") }

// differs returns how a tree differs from the state; empty: it does not. lines are those of the
// tree at root. The files of written may have a new mtime already.
func (s cutState) differs(lines map[string]string, root string, written map[string]bool) string {
	want, got := map[string]string{}, map[string]string{}
	for path, line := range s.lines {
		found := lines[path]
		if u, ok := s.unsynced[path]; ok && found != line && strings.HasPrefix(found, "file ") {
			text, err := os.ReadFile(filepath.Join(root, path))
			if err == nil && u.may(string(text)) {
				found = strings.Replace(found, harness.ContentWord(string(text)), harness.ContentWord(u.after), 1)
			}
			found, line = withoutMtime(found), withoutMtime(line)
		} else if written[path] && strings.Contains(found, newMtime) && withoutMtime(found) == withoutMtime(line) {
			found = line
		}
		want[path] = line
		if found != "" {
			got[path] = found
		}
	}
	for path, line := range lines {
		if _, ok := s.lines[path]; !ok {
			got[path] = line
		}
	}
	return harness.DiffLines(want, got)
}

// nearest finds the state among states[from:to+1] that a tree has. If it has none, fault is how it
// differs from the one that differs least.
func nearest(states []cutState, from, to int, root string, v harness.View) (index int, fault string) {
	lines, err := harness.Snapshot(root, v)
	if err != nil {
		return 0, err.Error()
	}
	// The data of a metacopy is copied before the file changes, which sets its mtime.
	written := map[string]bool{}
	for _, s := range states[from : to+1] {
		for path, line := range s.lines {
			written[path] = written[path] || strings.Contains(line, newMtime)
		}
	}
	for i := to; i >= from; i-- {
		diff := states[i].differs(lines, root, written)
		if diff == "" {
			return i, ""
		}
		if fault == "" || len(diff) < len(fault) {
			index, fault = i, diff
		}
	}
	return index, fmt.Sprintf("none of the states %d to %d; it differs least from state %d:\n%s", from, to, index,
		harness.Clip(fault))
}
