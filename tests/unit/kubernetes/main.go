// Writes what k8s.io/apimachinery and k8s.io/component-helpers say of quantities and pods; see README.md.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"os"

	inf "gopkg.in/inf.v0"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"
)

type quantityCase struct {
	Text       string  `json:"text"`
	Billionths *string `json:"billionths"` // null: no quantity
}

type podCase struct {
	Pod      *v1.Pod `json:"pod"`
	MilliCPU int64   `json:"milli_cpu"`
	Memory   int64   `json:"memory"`
}

func billionths(text string) *string {
	parsed, err := resource.ParseQuantity(text)
	if err != nil {
		return nil
	}
	exact := new(inf.Dec).Mul(parsed.AsDec(), inf.NewDec(1_000_000_000, 0))
	answer := new(inf.Dec).Round(exact, 0, inf.RoundExact)
	said := answer.String()
	return &said
}

func quantities() []quantityCase {
	texts := []string{"0", "100u", "500000n", "1e3", "1E", "0.5Gi", "12e6", "-1", "+1", "-2Gi", "+.5", "1.", "1.G", "1.Gi", ".5Mi",
		"1e-3", "1e-9", "1e-10", "1E+2", "1e+02", "1e03", "0.1n", "0.1u", "1.0000000001", "-0.1n", "1Ei", "7.999Ei", "8Ei", "9Ei",
		"-9Ei", "007", "00.5", "0Ki", "0.0Ki", "1.5Ti", "1.1Ki", "1e", "1e+", "1.2.3", "1 Gi", "1_000", "0x10", "1i", "1K",
		"1g", "1mi", "1ki", "1KI", "1Gib", "1GiB", "--1", "+-1", "1-", "", "two", "nan", "inf", "1e3.5", "1e3Ki", "1Ki3", "m1", "1n1",
		"123456789012345678", "1234567890123456789n", "0.123456789Gi", "0.000000001Ki", "3.3333333333Mi", "1P", "1.5E", "9E"}
	random := rand.New(rand.NewSource(20))
	numbers := []string{"%d", "%d.%d", ".%d", "-%d", "+%d.%d", "0%d", "%d.0%d"}
	suffixes := []string{"", "n", "u", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi", "e2", "E3", "e-4", "e+1", "K", "mm", "ei", "i"}
	for range 150 {
		form := numbers[random.Intn(len(numbers))]
		number := fmt.Sprintf(form, random.Intn(1000))
		if form == "%d.%d" || form == "+%d.%d" || form == "%d.0%d" {
			number = fmt.Sprintf(form, random.Intn(1000), random.Intn(100000))
		}
		texts = append(texts, number+suffixes[random.Intn(len(suffixes))])
	}
	var cases []quantityCase
	for _, text := range texts {
		cases = append(cases, quantityCase{text, billionths(text)})
	}
	return cases
}

func pods() []podCase {
	random := rand.New(rand.NewSource(21))
	amounts := []string{"100u", "500000n", "1500m", "2", "0.1", "1e1", "250m"}
	memories := []string{"3Gi", "500M", "1e9", "0.5Gi", "100Mi", "7", "1500m"}
	list := func(chance float64) v1.ResourceList {
		if random.Float64() > chance {
			return nil
		}
		answer := v1.ResourceList{}
		if random.Float64() < 0.8 {
			answer[v1.ResourceCPU] = resource.MustParse(amounts[random.Intn(len(amounts))])
		}
		if random.Float64() < 0.8 {
			answer[v1.ResourceMemory] = resource.MustParse(memories[random.Intn(len(memories))])
		}
		if random.Float64() < 0.1 {
			answer["hugepages-2Mi"] = resource.MustParse("4Mi")
		}
		return answer
	}
	always := v1.ContainerRestartPolicyAlways
	var cases []podCase
	for number := range 120 {
		pod := &v1.Pod{}
		status := number%2 == 1
		add := func(name string, restarts bool) v1.Container {
			container := v1.Container{Name: name, Resources: v1.ResourceRequirements{Requests: list(0.9)}}
			if restarts {
				container.RestartPolicy = &always
			}
			return container
		}
		told := func(name string) v1.ContainerStatus {
			answer := v1.ContainerStatus{Name: name, AllocatedResources: list(0.5)}
			if random.Float64() < 0.7 {
				answer.Resources = &v1.ResourceRequirements{Requests: list(0.8)}
			}
			return answer
		}
		for i := range random.Intn(4) {
			container := add(fmt.Sprintf("init-%d", i), random.Float64() < 0.5)
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, container)
			if status && random.Float64() < 0.7 {
				pod.Status.InitContainerStatuses = append(pod.Status.InitContainerStatuses, told(container.Name))
			}
		}
		for i := range 1 + random.Intn(3) {
			container := add(fmt.Sprintf("main-%d", i), false)
			pod.Spec.Containers = append(pod.Spec.Containers, container)
			if status && random.Float64() < 0.7 {
				pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, told(container.Name))
			}
		}
		if random.Float64() < 0.3 {
			pod.Spec.Overhead = list(1)
		}
		if random.Float64() < 0.3 {
			pod.Spec.Resources = &v1.ResourceRequirements{Requests: list(0.9)}
		}
		if status && random.Float64() < 0.3 {
			pod.Status.AllocatedResources = list(0.7)
			pod.Status.Resources = &v1.ResourceRequirements{Requests: list(0.7)}
		}
		if status && random.Float64() < 0.4 {
			reason := []string{"Infeasible", "Deferred"}[random.Intn(2)]
			pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodResizePending, Status: "True", Reason: reason}}
		}
		// What the library reads is what the test reads: an empty list is left out of the JSON, and is then none.
		data, _ := json.Marshal(pod)
		read := &v1.Pod{}
		if err := json.Unmarshal(data, read); err != nil {
			panic(err)
		}
		requests := helpers.PodRequests(read, helpers.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true})
		cases = append(cases, podCase{read, requests.Cpu().MilliValue(), requests.Memory().Value()})
	}
	return cases
}

func main() {
	for name, cases := range map[string]any{"quantities.json": quantities(), "pods.json": pods()} {
		file, err := os.Create(name)
		if err != nil {
			panic(err)
		}
		encoder := json.NewEncoder(file)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(cases); err != nil {
			panic(err)
		}
	}
}
