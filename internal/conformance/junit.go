package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
)

// errNoCase is the error of a suite that has not run.
var errNoCase = errors.New("the suite has reported no case")

// junitSuite is an element of JUnit's XML: testsuites, or testsuite.
type junitSuite struct {
	Name   string       `xml:"name,attr"`
	Suites []junitSuite `xml:"testsuite"`
	Cases  []junitCase  `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Failure *junitOutcome `xml:"failure"`
	Error   *junitOutcome `xml:"error"`
	Skipped *junitOutcome `xml:"skipped"`
}

type junitOutcome struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// parseJUnit reads the results of a tool that writes JUnit's XML. name makes the name of a case of
// the names of its testsuite and testcase.
func parseJUnit(in io.Reader, name func(suite, testcase string) string) (results []result, err error) {
	var top junitSuite
	if err := xml.NewDecoder(in).Decode(&top); err != nil {
		return nil, err
	}
	for _, s := range append(top.Suites, top) {
		for _, c := range s.Cases {
			r := result{Case: name(s.Name, c.Name), Status: passed}
			switch {
			case c.Failure != nil:
				r.Status, r.Detail = failed, c.Failure.line()
			case c.Error != nil:
				r.Status, r.Detail = failed, c.Error.line()
			case c.Skipped != nil:
				r.Status, r.Detail = notApplicable, c.Skipped.line()
			}
			results = append(results, r)
		}
	}
	if len(results) == 0 {
		return nil, errNoCase
	}
	return results, nil
}

// line is the first line of an outcome.
func (o *junitOutcome) line() string {
	text := o.Message
	if text == "" {
		text = o.Text
	}
	return firstLine(text)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
