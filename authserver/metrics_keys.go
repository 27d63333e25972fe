package authserver

import (
	"time"

	"authserver/keys"

	"github.com/prometheus/client_golang/prometheus"
)

// keyMetrics reads the keys when it is asked for. A kid is a label as long as its
// key is in the set, which bounds them.
type keyMetrics struct{ keys *keys.Manager }

func keyMetric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("authserver_key_"+name, help, labels, nil)
}

var (
	keyState         = keyMetric("state", "1 for each key in its state: pending, active, retiring or compromised.", "ring", "kid", "state")
	keyAge           = keyMetric("age_seconds", "Time since a key was published.", "ring", "kid")
	keyTransition    = keyMetric("transition_seconds", "Time until a key changes its state by itself; negative when that is overdue.", "ring", "kid", "to")
	keySignatures    = keyMetric("signatures_total", "Tokens that this instance signed with a key.", "ring", "kid")
	keyVerifications = keyMetric("verifications_total", "Tokens that this instance checked with a key.", "ring", "kid")
	keyRotation      = keyMetric("next_rotation_seconds", "Time until the next key of a ring signs; negative when that is overdue.", "ring")
	keySigns         = keyMetric("ring_signs", "1 when a ring has a key that signs, 0 when it has none.", "ring")
	keyFailures      = keyMetric("failed_rotations_total", "Times that this instance could not read, rotate or store the key set, or write its log.")
	keyConfirmed     = keyMetric("set_age_seconds", "Time since this instance last read the key set from the store.")
	keyLease         = keyMetric("lease", "1 while this instance may sign, 0 when it could not read the key set for too long.")
)

// Describe implements prometheus.Collector.
func (m keyMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{keyState, keyAge, keyTransition, keySignatures, keyVerifications, keyRotation, keySigns,
		keyFailures, keyConfirmed, keyLease} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m keyMetrics) Collect(out chan<- prometheus.Metric) {
	overview, now := m.keys.Describe(), time.Now()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	for _, r := range overview.Rings {
		signs := 0.0
		for _, k := range r.Keys {
			gauge(keyState, 1, r.Name, k.KeyID, k.State)
			gauge(keyAge, now.Sub(k.Published).Seconds(), r.Name, k.KeyID)
			counter(keySignatures, k.Signed, r.Name, k.KeyID)
			counter(keyVerifications, k.Verified, r.Name, k.KeyID)
			if k.State == "active" {
				signs = 1
			}
			if k.Next == nil {
				continue
			}
			gauge(keyTransition, k.Next.At.Sub(now).Seconds(), r.Name, k.KeyID, k.Next.To)
			if k.Next.To == "active" {
				gauge(keyRotation, k.Next.At.Sub(now).Seconds(), r.Name)
			}
		}
		gauge(keySigns, signs, r.Name)
	}
	counter(keyFailures, overview.FailedRotations)
	gauge(keyConfirmed, now.Sub(overview.Confirmed).Seconds())
	leased := 0.0
	if overview.Signing {
		leased = 1
	}
	gauge(keyLease, leased)
}
