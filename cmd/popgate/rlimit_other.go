//go:build !unix

package main

// openFilesLimit reports that there is no limit to know of.
func openFilesLimit() (uint64, bool) { return 0, false }
