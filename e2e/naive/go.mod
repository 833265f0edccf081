module github.com/probity-health/probity/e2e/naive

go 1.26.8
