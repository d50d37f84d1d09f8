package main

import (
	"errors"
	"fmt"

	"github.com/fuse-overlay/fuse-overlay/fs"
)

// resolveOptions applies the rules between options. Options that exclude each other are an error,
// what follows from an option is set, and an option without effect is dropped with a note. The
// rules are those of the kernel's overlayfs (ovl_fs_params_verify of Linux 6.18; up to 6.15 verity
// implied metacopy). Those of this program come last.
func (r *request) resolveOptions() error {
	r.dropUseless()
	o := &r.overlay
	f := &o.Features
	redirects := r.given["redirect_dir"]
	// Without an upper no redirect is written. metacopy needs no more than that they are followed.
	suits := o.Redirects == fs.RedirectsOn || o.Upper == "" && o.Redirects != fs.RedirectsNoFollow
	switch {
	case f.MetaCopy && redirects && !suits:
		return conflict("metacopy=on", "redirect_dir="+r.redirectWord())
	case f.Names.UserOnly && redirects && o.Redirects != fs.RedirectsNoFollow:
		return conflict("userxattr", "redirect_dir="+r.redirectWord())
	case f.Names.UserOnly && f.MetaCopy:
		return conflict("userxattr", "metacopy=on")
	case r.nfsExport:
		return errors.New("option nfs_export: on is not possible: what is exported by FUSE is found by numbers that end with the mount")
	}
	if err := r.needXattrs(); err != nil {
		return err
	}
	if f.MetaCopy && !redirects {
		o.Redirects = fs.RedirectsOn
	}
	if f.Names.UserOnly {
		o.Redirects = fs.RedirectsNoFollow
	}
	return nil
}

// dropUseless resets options that need a writable upper if there is none.
func (r *request) dropUseless() {
	o := &r.overlay
	why := "without an upperdir"
	switch {
	case o.ReadOnly:
		why = "on a read-only mount"
	case o.Upper != "":
		return
	}
	for _, f := range []struct {
		name string
		on   *bool
	}{{"volatile", &o.Volatile}, {"index=on", &o.Features.Index}, {"xattr_whiteouts", &o.Features.XattrWhiteouts}} {
		if *f.on {
			r.note("option %s is of no use %s, and is ignored", f.name, why)
		}
		*f.on = false
	}
	if o.Features.UUID == fs.UUIDOn && o.Upper == "" {
		r.note("option uuid=on needs an upperdir: uuid=null is used instead")
		o.Features.UUID = fs.UUIDNull
	}
}

// needXattrs refuses noxattrs together with options that are kept in extended attributes.
func (r *request) needXattrs() error {
	o := &r.overlay
	if !o.NoXattrs {
		return nil
	}
	for _, f := range []struct {
		name string
		on   bool
	}{
		{"xattr_permissions", o.Permissions != nil},
		{"redirect_dir=on", o.Redirects == fs.RedirectsOn},
		{"metacopy=on", o.Features.MetaCopy},
		{"index=on", o.Features.Index},
		{"userxattr", o.Features.Names.UserOnly},
		{"xattr_whiteouts", o.Features.XattrWhiteouts},
	} {
		if f.on {
			return fmt.Errorf("%w: %s is kept in extended attributes", conflict("noxattrs", f.name), f.name)
		}
	}
	return nil
}

func conflict(a, b string) error { return fmt.Errorf("conflicting options: %s,%s", a, b) }

func (r *request) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// redirectWord returns the word of the value of redirect_dir.
func (r *request) redirectWord() string {
	for _, c := range redirectChoices {
		if c.meaning == r.overlay.Redirects {
			return c.word
		}
	}
	return ""
}
