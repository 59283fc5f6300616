//go:build !unix

package main

// openFilesLimit reports that the limit is not known.
func openFilesLimit() (uint64, bool) { return 0, false }
