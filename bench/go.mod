module authserver/bench

go 1.26.6
