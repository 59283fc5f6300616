package config

import (
	"popgate/imapbackend"
	"popgate/proxy"
)

// Limits is [limits].
type Limits struct {
	Options        proxy.Limits
	ReadAheadTotal int64 // octets; 0: nothing is read ahead
}

// DefaultConnections is the default of connections.
const DefaultConnections = 10000

func defaultLimits() Limits {
	return Limits{
		Options:        proxy.Limits{Connections: DefaultConnections, Unauthenticated: 1000},
		ReadAheadTotal: imapbackend.Defaults().ReadAheadTotal,
	}
}

const maxConnections = 1_000_000 // no machine has more ports and descriptors

var limitsKeys = keyTable[Limits]{
	"connections":             integer(func(l *Limits) *int { return &l.Options.Connections }, 0, maxConnections),
	"connections_per_address": integer(func(l *Limits) *int { return &l.Options.PerAddress }, 0, maxConnections),
	"unauthenticated":         integer(func(l *Limits) *int { return &l.Options.Unauthenticated }, 0, maxConnections),
	"read_ahead_total":        size(func(l *Limits) *int64 { return &l.ReadAheadTotal }, 0, 1<<40, "256MiB"),
}
