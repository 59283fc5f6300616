package demo

import (
	"embed"
	"fmt"
)

//go:embed samples/*.eml
var samples embed.FS

// Samples returns the sample messages of popgate demo. Each is of a kind that
// breaks gateways; the subject says which. The caller owns them.
func Samples() [][]byte {
	entries, err := samples.ReadDir("samples")
	if err != nil {
		panic(fmt.Sprintf("demo: embedded samples: %v", err))
	}
	msgs := make([][]byte, len(entries))
	for i, e := range entries {
		if msgs[i], err = samples.ReadFile("samples/" + e.Name()); err != nil {
			panic(fmt.Sprintf("demo: embedded samples: %v", err))
		}
	}
	return msgs
}
