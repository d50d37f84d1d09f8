// Package podman runs podman and buildah for the end-to-end tests and the bench, as root or as a
// plain user. An engine has a storage, a configuration and namespaces of its own. It neither reads
// nor changes the storage and the containers of the machine's own podman. Several engines can run
// at the same time, and every process that an engine started ends with it.
//
// An engine lives in a mount namespace and a PID namespace. /run, /var/lib and /dev/shm are empty
// there. Of the cgroup hierarchies only those that crun accepts are mounted. All that podman stores
// lies below one folder, [Config].Dir.
//
// The package does not know what its callers test or measure.
package podman
