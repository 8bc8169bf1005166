// Package workload tells what the processes of a namespace belong to: a pod, a
// container, a systemd unit, a user.
//
// [Of] reads it from a cgroup path alone. [Logs] names pods by the directories
// in which the kubelet keeps their logs. A [Runtime], which an operator has to
// ask for, learns names, labels and network namespaces of pods from a container
// runtime, over its CRI; it owns one goroutine, which lives until Close. What
// they return stays right as long as nothing on the host changes, and belongs to
// the caller.
//
// The package only reads. It knows no Kubernetes API server, starts no program,
// and never waits for a runtime where a pass would have to wait with it. All
// strings that it returns are raw and bounded: escape them where they are
// printed.
package workload
