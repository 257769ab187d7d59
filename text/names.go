package text

import "strings"

// ReadClassName turns a folder's name into words: "ankle_boot" is "ankle boot".
func ReadClassName(folder string) string {
	return strings.Join(strings.FieldsFunc(folder, func(r rune) bool { return r == '_' || r == ' ' }), " ")
}

// ExpandTemplate puts a class name into a template, at {} or {class}; a template without
// either is followed by the name.
func ExpandTemplate(template, name string) string {
	for _, hole := range []string{"{class}", "{}"} {
		if strings.Contains(template, hole) {
			return strings.ReplaceAll(template, hole, name)
		}
	}
	return strings.TrimSpace(template + " " + name)
}
