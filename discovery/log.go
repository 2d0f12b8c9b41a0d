package discovery

import (
	"log/slog"
	"slices"
)

// LogChange writes one line for each of LeftOut, Notes, Twins, Suspect and Err that is
// not what it was before.
func LogChange(log *slog.Logger, service Service, before, after Fleet) {
	log = log.With("service", string(service))
	if !slices.Equal(before.LeftOut, after.LeftOut) {
		if len(after.LeftOut) == 0 {
			log.Info("no instance is left out any more")
		} else {
			log.Warn("instances are left out", "count", len(after.LeftOut), "left_out", after.LeftOut)
		}
	}
	if !slices.Equal(before.Notes, after.Notes) {
		if len(after.Notes) == 0 {
			log.Info("instances need no mending any more")
		} else {
			log.Warn("instances need mending", "count", len(after.Notes), "notes", after.Notes)
		}
	}
	if !slices.EqualFunc(before.Twins, after.Twins, equalTwins) {
		if len(after.Twins) == 0 {
			log.Info("each registration is of a process of its own")
		} else {
			log.Warn("registrations share an address or a drain endpoint", "count", len(after.Twins), "twins", after.Twins)
		}
	}
	logSentence(log, before.Suspect, after.Suspect, "instances vanished and are kept", "no absence is suspect any more")
	logSentence(log, before.Err, after.Err, "discovery cannot be read", "discovery is read again")
}

func logSentence(log *slog.Logger, before, after, bad, good string) {
	switch {
	case before == after:
	case after == "":
		log.Info(good)
	default:
		log.Warn(bad, "reason", after)
	}
}
