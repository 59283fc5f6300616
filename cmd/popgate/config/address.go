package config

import (
	"errors"
	"fmt"

	"popgate/proxy/endpoint"
)

// addressRemedy returns the remedy for an address of the form host:port for
// which endpoint.Split, with least, returned err.
func addressRemedy(err error, least uint16, example string) string {
	if _, ok := errors.AsType[*endpoint.PortError](err); ok {
		return fmt.Sprintf("write a number from %d to 65535", least)
	}
	return fmt.Sprintf("write host:port such as %q", example)
}
