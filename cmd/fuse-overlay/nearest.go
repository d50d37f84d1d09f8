package main

import "strings"

// nearest is the candidate with the fewest typing errors between it and what was typed, where a missing end is one; the
// first of equals. It is always one, for an error that names something is of more help than one that does not.
func nearest(typed string, candidates []string) string {
	best, least := "", -1
	for _, candidate := range candidates {
		d := typingErrors(typed, candidate)
		if typed != "" && strings.HasPrefix(candidate, typed) {
			d = min(d, 1)
		}
		if least < 0 || d < least {
			best, least = candidate, d
		}
	}
	return best
}

// typingErrors counts the characters to insert, delete or replace, and the neighbours to swap, that lead from a to b
// (the restricted Damerau-Levenshtein distance).
func typingErrors(a, b string) int {
	// Each row is for one more character of a, each column for one more of b.
	var beforeLast []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], beforeLast[j-2]+1)
			}
		}
		beforeLast, last = last, row
	}
	return last[len(b)]
}
