// Package rights tests owners, modes, ACLs, extended attributes, inode flags and id mappings, and
// what the owner of a layer must not be able to do. It does not test data.
package rights
