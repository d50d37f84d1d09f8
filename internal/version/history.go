package version

// First is the first version of all flags, options and commands whose descriptions name no other.
// The manual pages have it.
const First = "0.1.0"
