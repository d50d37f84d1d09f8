package main

import (
	"errors"
	"strconv"
	"strings"
)

// compatForm is how fuse-overlayfs reads the value of one of its options.
type compatForm int

const (
	// compatText is any text; a wrong one ends that program.
	compatText compatForm = iota
	// compatAnyText is any text, and none is wrong.
	compatAnyText
	// compatInteger is a number, and what follows its digits is not looked at.
	compatInteger
	// compatSwitch is a number that means on unless it is 0.
	compatSwitch
)

// compatForms are the options of fuse-overlayfs that take a value (tried with version 1.10). That program ignores them with
// a warning where no value is given, and all other options where one is given.
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

// applyCompat is apply for callers of fuse-overlayfs: ignored reports a field that is passed by with a warning, because that
// program does so, or because it gives the value no meaning and this one refuses it.
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
	if r.nfsExport { // settle refuses it later
		r.nfsExport, err = false, errUnsupported
	}
	return err != nil, nil
}

// meansNothing reports a value by which fuse-overlayfs does what it does without the option.
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

// leadingInteger reads the number at the beginning of s, as sscanf(3) does by %d.
func leadingInteger(s string) (n int, ok bool) {
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && strings.ContainsRune("+-", rune(s[0]))) {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	return n, err == nil || errors.Is(err, strconv.ErrRange)
}
