// Package merge folds an upper into its topmost lower, as if the changes had been made there.
//
// [Merge.Plan] walks through the changes of the upper (internal/changes) and makes a list of steps.
// [Merge.Run] does them in three parts:
//
//	stage   makes all objects that are no plain renames of the upper's, in a staging directory. Until
//	        the commit nothing changes in the layers, and an error or a kill leaves them as they were
//	commit  one rename puts the directory incompat into the work directory, with the list and an
//	        entry "merge". From then on no mount takes the upper, neither of this program nor of
//	        the kernel's overlayfs
//	apply   moves objects within the lower, and to it from the upper and the staging directory
//	clean   empties the upper, and removes staging directory and list
//
// Each step of the last two can be repeated: a rename is done if its source is gone. So a second
// call with the same layers completes a merge that was killed, or that has met an error.
//
// If upper, work directory and lower lie on one mount, incompat is the staging directory as well,
// and objects of the upper are renamed into the lower. Otherwise it is in the lower, and all
// objects are copied.
//
// The package reads by views what the merged tree holds, so it has no rule of merging of its own.
package merge
