package main

import "authserver/bench/internal/process"

// scene is a server on a Redis of its own, and who follows it.
type scene struct {
	redis     *process.Redis
	installed *process.Installation
	server    *process.Process
	crowd     *crowd
}

func newScene(binary string) (*scene, error) { return newSceneOf(binary, process.Options{}) }

func newSceneOf(binary string, options process.Options) (*scene, error) {
	redis, err := process.StartRedis("--appendonly", "yes")
	if err != nil {
		return nil, err
	}
	s := &scene{redis: redis}
	options.RedisPort = redis.Port
	if s.installed, err = process.Install(binary, options); err == nil {
		s.crowd = newCrowd(s.installed)
		s.server, err = s.installed.Start()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close ends all of it.
func (s *scene) close() {
	if s.crowd != nil {
		s.crowd.stop()
	}
	if s.server != nil {
		s.server.Stop()
	}
	if s.installed != nil {
		s.installed.Remove()
	}
	s.redis.Stop()
}
