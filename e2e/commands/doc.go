// Package commands tests the commands of fuse-overlay beside mount: what do they print, which
// mounts do they touch, and what do they need?
package commands
