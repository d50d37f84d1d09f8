package main

import "strings"

// nearest returns the candidate with the fewest typing errors against typed, the first of several.
// Empty: none is near. A candidate that begins with typed counts as one error, from three
// characters on.
func nearest(typed string, candidates []string) string {
	typed = strings.ToLower(strings.TrimSpace(typed))
	if len(typed) > longestName {
		return ""
	}
	best, least := "", nearErrors(len(typed))+1
	for _, candidate := range candidates {
		d := typingErrors(typed, candidate)
		if len(typed) >= shortestPrefix && strings.HasPrefix(candidate, typed) {
			d = min(d, 1)
		}
		if d < least {
			best, least = candidate, d
		}
	}
	return best
}

const (
	shortestPrefix = 3
	longestName    = 32 // of an option, with room for typing errors
)

// nearErrors is how many typing errors a name of a length may have: one in three characters. Names
// that differ in more are not alike.
func nearErrors(length int) int { return min(length/3, 3) }

// typingErrors counts the characters to insert, delete or replace, and the neighbours to swap, that
// lead from a to b (the restricted Damerau-Levenshtein distance).
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
