// Package config reads the configuration file.
//
// A file becomes a Config in three steps. Decode: the TOML decoder yields maps.
// Defaults: each table of the file begins as a struct with its defaults, most
// of them those of the package that the struct configures, and the row of each
// key sets one field of it, or says what is wrong with the value. Validate: the
// check of each table looks at what concerns more than one key, and reads the
// files that are named. The mistakes of all steps are collected, and reported
// together in the order of the file, each with its line, its key and a remedy.
//
// What a value of imapbackend.Options must fulfil is said there once, by
// Options.Resolve; this package adds line, key and remedy.
//
// There is one file for each table: its struct, its defaults, its keys and its
// check. The others: load.go the steps, table.go the tables there are and
// unknown names, values.go the types of values, files.go and address.go what
// several tables check, tls.go what a listener agrees to, position.go the lines
// of keys, problem.go the mistakes, warnings.go what is valid but doubtful.
package config
