package config

import "log/slog"

// Log is [log].
type Log struct {
	Level slog.Level
	JSON  bool // instead of text
}

func defaultLog() Log { return Log{Level: slog.LevelInfo} }

var logKeys = keyTable[Log]{
	"level": choice(func(l *Log) *slog.Level { return &l.Level },
		word[slog.Level]{"debug", slog.LevelDebug}, word[slog.Level]{"info", slog.LevelInfo},
		word[slog.Level]{"warn", slog.LevelWarn}, word[slog.Level]{"error", slog.LevelError}),
	"format": choice(func(l *Log) *bool { return &l.JSON }, word[bool]{"text", false}, word[bool]{"json", true}),
}
