// Package engines tests the program below real users of overlays: podman, buildah, containerd,
// docker, the container runtimes, and whole root file systems that dpkg and others change. It does
// not test single operations.
package engines
