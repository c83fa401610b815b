// Writes the fields that Kubernetes' own type of kube-scheduler's configuration has, as a JSON schema; see ../README.md.
package main

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	v1 "k8s.io/kube-scheduler/config/v1"
)

type schema map[string]any

func schemaOf(t reflect.Type) schema {
	if t == reflect.TypeOf(metav1.Duration{}) {
		return schema{"type": "string", "pattern": `^([0-9.]+(ns|us|ms|s|m|h))+$`}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Struct:
		properties := schema{}
		addFields(properties, t)
		return schema{"type": "object", "properties": properties, "additionalProperties": false}
	case reflect.Slice:
		return schema{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return schema{"type": "integer"}
	case reflect.Float32, reflect.Float64:
		return schema{"type": "number"}
	}
	return schema{} // anything: the arguments of plugins
}

func addFields(properties schema, t reflect.Type) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" && (field.Anonymous || options == "inline") {
			addFields(properties, field.Type)
		} else if name != "" && name != "-" {
			properties[name] = schemaOf(field.Type)
		}
	}
}

func main() {
	text, err := json.MarshalIndent(schemaOf(reflect.TypeOf(v1.KubeSchedulerConfiguration{})), "", " ")
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(text, '\n'))
}
