// Command chart lints and renders Helm charts as helm does, with helm's own packages: no helm binary is needed.
//
//	chart lint [-f VALUES]... CHART            problems, one a line; exit 1 where one is an error or a warning
//	chart template [-f VALUES]... [--set K=V]... [--namespace N] [--include-crds] RELEASE CHART
//	chart notes    the same flags: what `helm install` prints at its end
//	chart manifest the same flags: the definitions, the namespace and all else, to be applied without helm
package main

import (
	"fmt"
	"os"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"helm.sh/helm/v3/pkg/releaseutil"
	"helm.sh/helm/v3/pkg/strvals"
)

// The version of Kubernetes that charts are rendered for where no cluster is asked.
const kubeVersion = "v1.36.3"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say lint, template, notes or manifest")
	}
	request, err := parse(args[1:])
	if err != nil {
		return err
	}
	switch args[0] {
	case "lint":
		return request.lint()
	case "template":
		text, err := request.template()
		fmt.Print(text)
		return err
	case "manifest":
		text, err := request.manifest()
		fmt.Print(text)
		return err
	case "notes":
		text, err := request.notes()
		fmt.Print(text)
		return err
	}
	return fmt.Errorf("no command %q", args[0])
}

// What is to be rendered, and with which values over the chart's own.
type request struct {
	release, chart, namespace string
	values                    map[string]any
	crds                      bool
}

func parse(args []string) (*request, error) {
	r := &request{namespace: "default", values: map[string]any{}}
	var rest []string
	for len(args) > 0 {
		flag := args[0]
		args = args[1:]
		if !strings.HasPrefix(flag, "-") {
			rest = append(rest, flag)
			continue
		}
		if flag == "--include-crds" {
			r.crds = true
			continue
		}
		if len(args) == 0 {
			return nil, fmt.Errorf("%s wants a value", flag)
		}
		value := args[0]
		args = args[1:]
		switch flag {
		case "-f", "--values":
			file, err := chartutil.ReadValuesFile(value)
			if err != nil {
				return nil, err
			}
			r.values = chartutil.CoalesceTables(file.AsMap(), r.values)
		case "--set":
			if err := strvals.ParseInto(value, r.values); err != nil {
				return nil, err
			}
		case "-n", "--namespace":
			r.namespace = value
		default:
			return nil, fmt.Errorf("no flag %q", flag)
		}
	}
	switch len(rest) {
	case 1:
		r.release, r.chart = "release-name", rest[0]
	case 2:
		r.release, r.chart = rest[0], rest[1]
	default:
		return nil, fmt.Errorf("name a release and the folder of a chart")
	}
	return r, nil
}

func (r *request) lint() error {
	version, err := chartutil.ParseKubeVersion(kubeVersion)
	if err != nil {
		return err
	}
	linter := lint.AllWithKubeVersion(r.chart, r.values, r.namespace, version)
	for _, message := range linter.Messages {
		fmt.Println(message.Error())
	}
	if linter.HighestSeverity >= support.WarningSev {
		return fmt.Errorf("%s has problems", r.chart)
	}
	return nil
}

// Every file of the chart by its name, rendered; notes included.
func (r *request) render() (*chart.Chart, map[string]string, error) {
	loaded, err := loader.Load(r.chart)
	if err != nil {
		return nil, nil, err
	}
	if err := chartutil.ProcessDependencies(loaded, r.values); err != nil {
		return nil, nil, err
	}
	version, err := chartutil.ParseKubeVersion(kubeVersion)
	if err != nil {
		return nil, nil, err
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	options := chartutil.ReleaseOptions{Name: r.release, Namespace: r.namespace, Revision: 1, IsInstall: true}
	// The schema of values is checked here.
	values, err := chartutil.ToRenderValues(loaded, r.values, options, capabilities)
	if err != nil {
		return nil, nil, err
	}
	files, err := engine.Engine{}.Render(loaded, values)
	return loaded, files, err
}

func (r *request) template() (string, error) {
	loaded, files, err := r.render()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	if r.crds {
		for _, crd := range loaded.CRDObjects() {
			document(&out, crd.Filename, string(crd.File.Data))
		}
	}
	delete(files, loaded.Name()+"/templates/NOTES.txt")
	_, manifests, err := releaseutil.SortManifests(files, chartutil.DefaultVersionSet, releaseutil.InstallOrder)
	if err != nil {
		return "", err
	}
	for _, manifest := range manifests {
		document(&out, manifest.Name, manifest.Content)
	}
	return out.String(), nil
}

// Writes a document unless there is nothing in it.
func document(out *strings.Builder, name, text string) {
	text = strings.TrimSpace(text)
	if text == "" {
		return
	}
	fmt.Fprintf(out, "---\n# Source: %s\n%s\n", name, text)
}

// Pods of the namespace must be of the level that the charts keep to.
const namespace = `apiVersion: v1
kind: Namespace
metadata:
  name: %s
  labels:
    pod-security.kubernetes.io/enforce: restricted
`

func (r *request) manifest() (string, error) {
	loaded, err := loader.Load(r.chart)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "# Made by conformance/chart from the chart %s %s with its own values; do not edit.\n", loaded.Name(), loaded.Metadata.Version)
	document(&out, "the namespace", fmt.Sprintf(namespace, r.namespace))
	r.crds = true
	rest, err := r.template()
	return out.String() + rest, err
}

func (r *request) notes() (string, error) {
	loaded, files, err := r.render()
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(files[loaded.Name()+"/templates/NOTES.txt"]) + "\n", nil
}
