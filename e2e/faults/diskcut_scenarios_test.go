package faults

import "math/rand/v2"

// diskScenario is what happens until the power goes.
type diskScenario struct {
	name string
	// opts are those of the mounts here, kernel those of the kernel's.
	opts   []string
	kernel string
	// nlink: link counts are compared too.
	nlink bool
	// steps are made in the mount.
	steps func(r *rand.Rand) []cutStep
	// volatile: the mount during the steps is volatile.
	volatile bool
	// before is a script in the mount before, command the name of a command that is run in place of
	// steps, and does not change what mounts show.
	before, command string
}

const (
	plainKernel = "index=off,redirect_dir=off,metacopy=off,xino=off"
	allKernel   = "index=on,redirect_dir=on,metacopy=on,xino=off"
)

// beforeCommand changes the tree of cutTree in each way, and leaves copies that equal the lower's.
const beforeCommand = `
	chmod 600 d0/f0; echo more >>d0/f1; rm d0/f2; mv d0/f3 d0/g3; rm -r d1; mkdir d1; echo new >d1/f0; cp -a d2 copy
	for f in d3/f*; do touch -r $f stamp; echo x >>$f; truncate -s -2 $f; touch -r stamp $f; done; rm stamp
	chmod 711 d4 d4/f1; chmod 754 d4; chmod 644 d4/f1; ln d5/f1 d5/hard; ln -s f1 d5/soft; rm links/a0; echo y >>links/b1
	for i in $(seq 40); do echo $i >d5/new$i; done; mv d2/sub d2/moved 2>/dev/null || true`

var diskScenarios = []diskScenario{
	{name: "copy-ups", kernel: plainKernel, steps: copyUpSteps},
	{name: "new objects", kernel: plainKernel, steps: createSteps},
	{name: "renames", kernel: plainKernel, steps: renameSteps},
	{name: "removals", kernel: plainKernel, steps: removeSteps},
	{name: "redirects", opts: []string{"redirect_dir=on"}, kernel: "index=off,redirect_dir=on,metacopy=off,xino=off", steps: redirectSteps},
	{name: "index", opts: []string{"index=on"}, kernel: "index=on,redirect_dir=off,metacopy=off,xino=off", nlink: true, steps: indexSteps},
	{name: "metacopies", opts: []string{"metacopy=on"}, kernel: "index=off,redirect_dir=on,metacopy=on,xino=off", steps: metacopySteps},
	{name: "volatile", kernel: plainKernel, volatile: true, steps: func(r *rand.Rand) []cutStep {
		return append(copyUpSteps(r), removeSteps(r)...)
	}},
	{name: "merge", kernel: plainKernel, before: beforeCommand, command: "merge"},
	{name: "merge of all formats", opts: []string{"redirect_dir=on", "metacopy=on", "index=on"}, kernel: allKernel,
		before: beforeCommand, command: "merge"},
	{name: "vacuum", kernel: plainKernel, before: beforeCommand, command: "vacuum"},
}
