// Package config reads the configuration file.
//
// A file becomes a Config in three steps:
//
//   - Decode: the TOML decoder returns maps.
//   - Defaults: each table begins as a struct with its defaults, most of them
//     those of the package that the struct configures. The setter of each key
//     sets one field of it, or returns what is wrong with the value.
//   - Validate: the check of each table examines what concerns more than one
//     key, and reads the files that are named.
//
// The mistakes of all steps are collected and reported together, in the order of
// the file, each with its line, its key and a remedy. imapbackend.Options are
// checked by Options.Resolve; this package adds line, key and remedy.
//
// Each table has a file with its struct, defaults, keys and check. The other
// files: load.go the steps, table.go the list of tables and unknown names,
// values.go the types of values, files.go and address.go the checks that several
// tables share, tls.go the TLS configuration of a listener, position.go the
// lines of keys, problem.go the mistakes, warnings.go what is valid but risky.
package config
