// Package tryout tests fuse-overlay try on the running system: the real tree does not change, what
// is listed is what the command has done, and nothing is left, also of a command that is killed.
package tryout
