// Writes ExtenderArgs as kube-scheduler sends them, with the published API types; and reads our answers back strictly.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func write(name string, value any) {
	data, err := json.MarshalIndent(value, "", "  ")
	must(err)
	must(os.WriteFile(name, append(data, '\n'), 0o644))
}

func read(name string, into any) {
	data, err := os.ReadFile(name)
	must(err)
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	must(decoder.Decode(into))
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "check" {
		var names, nodes extenderv1.ExtenderFilterResult
		var priorities extenderv1.HostPriorityList
		read("filter-names.response.json", &names)
		read("filter-nodes.response.json", &nodes)
		read("prioritize.response.json", &priorities)
		fmt.Printf("%+v\n%d nodes, failed %+v\n%+v\n", *names.NodeNames, len(nodes.Nodes.Items), nodes.FailedNodes, priorities)
		return
	}
	pod := &v1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "default", UID: "6b9f1d7e-3c5a-4f0e-9d55-0a1b2c3d4e5f"},
		Spec: v1.PodSpec{
			InitContainers: []v1.Container{{Name: "init", Image: "init:1", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{
				v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("256Mi")}}}},
			Containers: []v1.Container{
				{Name: "web", Image: "web:1", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{
					v1.ResourceCPU: resource.MustParse("1500m"), v1.ResourceMemory: resource.MustParse("2Gi")}}},
				{Name: "side", Image: "side:1", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{
					v1.ResourceCPU: resource.MustParse("500m"), v1.ResourceMemory: resource.MustParse("500M")}}},
			},
		},
	}
	names := []string{"node-1", "node-2", "node-3", "node-4"}
	var nodes v1.NodeList
	for _, name := range names {
		nodes.Items = append(nodes.Items, v1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
			Status: v1.NodeStatus{Capacity: v1.ResourceList{v1.ResourceCPU: resource.MustParse("64"), v1.ResourceMemory: resource.MustParse("256Gi")}},
		})
	}
	write("names.request.json", extenderv1.ExtenderArgs{Pod: pod, NodeNames: &names})
	write("nodes.request.json", extenderv1.ExtenderArgs{Pod: pod, Nodes: &nodes})
}
