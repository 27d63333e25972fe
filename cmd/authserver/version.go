package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision"` // of the source
	Go       string `json:"go"`
}

func currentVersion() versionInfo {
	version := versionInfo{Version: "(devel)", Revision: "unknown", Go: runtime.Version()}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	if build.Main.Version != "" {
		version.Version = build.Main.Version
	}
	for _, setting := range build.Settings {
		if setting.Key == "vcs.revision" {
			version.Revision = setting.Value
		}
	}
	return version
}

func newVersionCommand() *cobra.Command {
	command := &cobra.Command{Use: "version", Short: "Print the version", Example: "  authserver version -o json", Args: arguments(0)}
	output := outputFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		version := currentVersion()
		if *output == outputJSON {
			return json.NewEncoder(command.OutOrStdout()).Encode(version)
		}
		_, err := fmt.Fprintf(command.OutOrStdout(), "authserver %s\nrevision   %s\ngo         %s\n", version.Version, version.Revision, version.Go)
		return err
	}
	return command
}
