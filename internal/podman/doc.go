// Package podman runs podman and buildah with a storage, a configuration and namespaces of their own, as root or as a plain
// user, for the end-to-end tests and the bench: nothing that the machine's own podman has is seen or changed, several
// engines run side by side, and whatever they start ends with them.
//
// An engine lives in a mount and a PID namespace. /run, /var/lib and /dev/shm are empty there, and of the cgroup
// hierarchies only those that crun takes are mounted. What podman keeps lies below one folder.
//
// It does not know what is tested or measured.
package podman
