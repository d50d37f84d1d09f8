// Package sandbox takes rights away from this process, for good: system calls by a seccomp filter,
// capabilities, and TCP, other processes' sockets and signals by Landlock. The kernel then refuses
// what the daemon never does, also if a fault of the program lets a layer or a client take it over.
//
// Everything holds for all threads of the process, and for those that they make. What the kernel
// does not have is left out and reported. The package does not decide when a process is confined,
// and starts no process that is not.
package sandbox
