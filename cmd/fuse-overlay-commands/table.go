package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// colour is a colour of text on a terminal, by its number (ECMA-48, SGR).
type colour int

const (
	plain colour = 0
	red   colour = 31
	green colour = 32
)

// wantsColour reports whether the output is a terminal that shows colours, and the user has not
// turned them off (https://no-color.org).
func wantsColour(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && obeysEscapes(w)
}

// obeysEscapes reports whether the output is a terminal that obeys escape sequences.
func obeysEscapes(w io.Writer) bool { return os.Getenv("TERM") != "dumb" && isTerminal(w) }

// isTerminal reports whether the output is a terminal.
func isTerminal(w io.Writer) bool {
	if o, ok := w.(*output); ok {
		w = o.w
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// cell is one field of a table. Its text is ASCII.
type cell struct {
	text   string
	colour colour
}

// table is printed with aligned columns, two blanks apart.
type table struct {
	head []string
	rows [][]cell
}

func (t *table) print(w io.Writer, colours bool) {
	head := make([]cell, len(t.head))
	for i, text := range t.head {
		head[i].text = text
	}
	lines := append([][]cell{head}, t.rows...)
	widths := make([]int, len(head))
	for _, line := range lines {
		for i, c := range line {
			widths[i] = max(widths[i], len(c.text))
		}
	}
	for _, line := range lines {
		for i, c := range line {
			text := c.text
			if colours && c.colour != plain {
				text = fmt.Sprintf("\x1b[%dm%s\x1b[0m", c.colour, text)
			}
			if i < len(line)-1 && (i < len(line)-2 || line[i+1].text != "") {
				text += strings.Repeat(" ", widths[i]-len(c.text)+2)
			}
			fmt.Fprint(w, text)
		}
		fmt.Fprintln(w)
	}
}
