package main

import (
	"errors"
	"strconv"
	"strings"
)

// compatForm is how fuse-overlayfs parses the value of one of its options.
type compatForm int

const (
	// compatText is a text that fuse-overlayfs checks.
	compatText compatForm = iota
	// compatAnyText is a text that it does not check.
	compatAnyText
	// compatInteger is a number. What follows its digits is ignored.
	compatInteger
	// compatSwitch is a number that means on unless it is 0.
	compatSwitch
)

// compatForms are the options of fuse-overlayfs that take a value (tried with version 1.10). That
// program ignores them with a warning if they have no value, and all other options if they have
// one.
var compatForms = map[string]compatForm{
	"lowerdir":          compatText,
	"upperdir":          compatText,
	"workdir":           compatText,
	"redirect_dir":      compatText,
	"uidmapping":        compatText,
	"gidmapping":        compatText,
	"timeout":           compatAnyText,
	"context":           compatAnyText,
	"xattr_permissions": compatInteger,
	"squash_to_uid":     compatInteger,
	"squash_to_gid":     compatInteger,
	"fsync":             compatSwitch,
	"writeback":         compatSwitch,
	"threaded":          compatSwitch,
	"fast_ino":          compatSwitch,
	"noxattrs":          compatSwitch,
}

// applyCompat applies a field as callers of fuse-overlayfs expect it. ignored: the field has no
// effect but a warning. Either fuse-overlayfs does the same, or it gives the value no meaning and
// this program refuses it.
func (r *request) applyCompat(field string) (ignored bool, err error) {
	name, value, given := strings.Cut(field, "=")
	form, theirs := compatForms[name]
	switch {
	case theirs && !given:
		return true, nil
	case theirs && meansNothing(name, value):
		return true, nil
	case form == compatInteger || form == compatSwitch:
		if n, ok := leadingInteger(value); ok {
			field = name + "=" + form.normal(n)
		}
	}
	err = r.apply(field)
	if theirs && form != compatAnyText {
		return false, err
	}
	if r.nfsExport { // resolveOptions would refuse it later
		r.nfsExport, err = false, errUnsupported
	}
	return err != nil, nil
}

// meansNothing reports whether fuse-overlayfs does the same with the value as without the option.
func meansNothing(name, value string) bool {
	switch name {
	case "uidmapping", "gidmapping":
		return value == ""
	case "squash_to_uid", "squash_to_gid":
		return value == "-1" || value == "4294967295"
	}
	return false
}

// normal writes a number as the option's setter takes it.
func (f compatForm) normal(n int) string {
	if f == compatSwitch && n != 0 {
		n = 1
	}
	return strconv.Itoa(n)
}

// leadingInteger parses the number at the beginning of s, as sscanf(3) does with %d.
func leadingInteger(s string) (n int, ok bool) {
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && strings.ContainsRune("+-", rune(s[0]))) {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	return n, err == nil || errors.Is(err, strconv.ErrRange)
}
