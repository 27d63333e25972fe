package authserver

import "github.com/prometheus/client_golang/prometheus"

// metrics have labels from fixed sets only, never from requests.
type metrics struct {
	requests  *prometheus.CounterVec
	tokens    *prometheus.CounterVec
	refreshes *prometheus.CounterVec
	replays   prometheus.Counter

	constantChallenges prometheus.Counter
	guesses            *prometheus.CounterVec

	revocations prometheus.Gauge
	streams     prometheus.Gauge

	events        *prometheus.CounterVec
	eventsWaiting *prometheus.GaugeVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "authserver_requests_total",
			Help: "Requests by endpoint and outcome: ok, or the error code that was answered.",
		}, []string{"endpoint", "outcome"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "authserver_tokens_issued_total",
			Help: "Successful token requests by grant_type.",
		}, []string{"grant_type"}),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "authserver_refreshes_total",
			Help: "Refresh tokens presented by outcome: rotated, retried (the same successor again) or theft (the grant was ended).",
		}, []string{"outcome"}),
		revocations: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "authserver_revocations_live",
			Help: "Revocations that matter now, counted once a minute.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "authserver_revocation_streams",
			Help: "Connections that follow the feed of revocations.",
		}),
	}
	m.replays = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "authserver_code_replays_total",
		Help: "Authorization codes that were presented again by whoever could redeem them (the grant was ended).",
	})
	m.constantChallenges = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "authserver_constant_challenges_total",
		Help: "Codes for a request with the code_challenge of the client's request before it: a client that makes no new one is not protected by PKCE.",
	})
	m.guesses = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "authserver_client_secret_refusals_total",
		Help: "Secrets of clients by why they were refused: wrong, or too_early after many wrong ones for the client_id from the network.",
	}, []string{"why"})
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "authserver_security_events_total",
		Help: "Security events by receiver and outcome: delivered, refused by it, failed (tried again), or given up: too_old, too_many, given_up, unreadable.",
	}, []string{"receiver", "outcome"})
	m.eventsWaiting = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "authserver_security_events_waiting",
		Help: "Security events that wait for a receiver, at the instance that delivers to it.",
	}, []string{"receiver"})
	if registry != nil {
		registry.MustRegister(m.requests, m.tokens, m.refreshes, m.replays, m.constantChallenges, m.guesses, m.revocations, m.streams, m.events, m.eventsWaiting)
	}
	return m
}
