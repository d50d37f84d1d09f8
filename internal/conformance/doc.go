// Command conformance runs the test suites of others on a mount of this program, and on the
// kernel's overlayfs in the same run: make test-conformance SUITES=FOLDER.
//
// The suites are not part of this tree. The file pins.txt names the repository and the commit of
// each. The user clones them into one folder, each under its own name, checks the commit out, and
// builds them as their own documents describe. A folder at another commit is an error.
//
// Each suite runs in each mode (modes.go): in namespaces of its own, and on a new file system. Its
// results are passed, failed and not applicable, by the name of the case. The file expected.txt
// lists the cases that fail, with the reason. The run fails if any other case fails, and if a
// listed case does not fail. The results are kept in the folder -out, one file for each suite and
// mode. The table that the command prints covers all files of that folder.
//
// To add a suite, write a file with its run function, add a row to suites (suite.go) and a line to
// pins.txt. A run function gets a session, and returns one result for each case:
//
//	session.mounted  mounts an overlay, and returns a directory that a lower has too
//	session.mountedOver  the same, with a folder of the machine as one more lower
//	session.command  makes a command that writes to the log and ends with the session
//	session.helpers  makes mount(8) call the program, for a suite that mounts by itself
//	session.chosen   reports whether the user has chosen a part of the suite (CASE=)
//	commandCases     one command for each case, and its exit status
//	withUnit         a result for a module or package that has reported no case
//	parseJUnit       results of TAP (by prove) and of all other tools that write JUnit's XML
//
// The command does not build suites, and does not know what a case tests.
package main
