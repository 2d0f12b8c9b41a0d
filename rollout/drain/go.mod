module github.com/sluice-proxy/sluice/rollout/drain

go 1.24
