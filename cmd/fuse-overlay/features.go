package main

import (
	"fmt"
	"strings"

	"github.com/fuse-overlay/fuse-overlay/fs"
)

// The kernel's overlayfs calls the parts of the format on disk that can be chosen features.

// choice is one of the words that an option takes, with its meaning.
type choice[T any] struct {
	word    string
	meaning T
}

// oneOf returns the setter of an option that takes one of some words.
func oneOf[T any](field func(*request) *T, choices ...choice[T]) setter {
	return func(r *request, value string) error {
		var words []string
		for _, c := range choices {
			if c.word == value {
				*field(r) = c.meaning
				return nil
			}
			words = append(words, c.word)
		}
		last := len(words) - 1
		return fmt.Errorf("%s is none of %s and %s", quoted(value), strings.Join(words[:last], ", "), words[last])
	}
}

// onOrOff returns the setter of an option that is on or off.
func onOrOff(field func(*request) *bool) setter {
	return oneOf(field, choice[bool]{"on", true}, choice[bool]{"off", false})
}

// offOrOn is onOrOff for a field that has the opposite meaning.
func offOrOn(field func(*request) *bool) setter {
	return oneOf(field, choice[bool]{"on", false}, choice[bool]{"off", true})
}

var redirectChoices = []choice[fs.Redirects]{
	{"on", fs.RedirectsOn}, {"off", fs.RedirectsOff}, {"follow", fs.RedirectsFollow}, {"nofollow", fs.RedirectsNoFollow},
}

var setRedirects = oneOf(func(r *request) *fs.Redirects { return &r.overlay.Redirects }, redirectChoices...)

// setXino checks the word and has no effect: inode numbers are always made as with on.
var setXino = oneOf(func(*request) *string { return new(string) },
	choice[string]{word: "on"}, choice[string]{word: "off"}, choice[string]{word: "auto"})

var setUUID = oneOf(func(r *request) *fs.UUID { return &r.overlay.Features.UUID },
	choice[fs.UUID]{"on", fs.UUIDOn}, choice[fs.UUID]{"off", fs.UUIDOff},
	choice[fs.UUID]{"null", fs.UUIDNull}, choice[fs.UUID]{"auto", fs.UUIDAuto})

var setVerity = oneOf(func(r *request) *fs.Verity { return &r.overlay.Features.Verity },
	choice[fs.Verity]{"on", fs.VerityOn}, choice[fs.Verity]{"off", fs.VerityOff}, choice[fs.Verity]{"require", fs.VerityRequire})

// feature returns the field of a feature in a request.
func feature(field func(*fs.Features) *bool) func(*request) *bool {
	return func(r *request) *bool { return field(&r.overlay.Features) }
}
