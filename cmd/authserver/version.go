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
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

func currentVersion() versionInfo {
	version := versionInfo{Version: "(devel)", Go: runtime.Version()}
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
	var output string
	command := &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  authserver version -o json", Args: arguments(0),
		RunE: func(command *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			version := currentVersion()
			if output == "json" {
				return json.NewEncoder(command.OutOrStdout()).Encode(version)
			}
			fmt.Fprintf(command.OutOrStdout(), "authserver %s %s %s\n", version.Version, version.Revision, version.Go)
			return nil
		},
	}
	outputFlag(command, &output)
	return command
}
