//go:build e2e && linux

package apitest

import (
	"errors"
	"os"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// daemonUser is whom the daemons act as.
const daemonUser = "kube-hop"

// rights are all that a daemon may do.
func rights() []rbacv1.PolicyRule {
	watch := []string{"list", "watch"}
	return []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: watch},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: watch},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: watch},
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch", "update"}},
	}
}

// grantRights stores the rights and waits until the API server goes by them.
func (c *cluster) grantRights(t *testing.T) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: daemonUser}
	roles := c.client.RbacV1()
	if _, err := roles.ClusterRoles().Create(t.Context(),
		&rbacv1.ClusterRole{ObjectMeta: meta, Rules: rights()}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := roles.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: daemonUser},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: daemonUser}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.until(t, "rights of "+daemonUser, func() error {
		if !c.may(t, "networking.k8s.io", "servicecidrs", "list") {
			return errors.New("not granted")
		}
		return nil
	})
}

// may asks the API server whether the daemons' user has a right.
func (c *cluster) may(t *testing.T, group, resource, verb string) bool {
	t.Helper()
	review, err := c.client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(),
		&authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               daemonUser,
			Groups:             []string{"system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{Group: group, Resource: resource, Verb: verb},
		}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}

// testRights checks that the daemons are as restricted as this suite claims, and that it is enough for them: nothing
// was forbidden. That they work so is what all other tests show.
func testRights(t *testing.T, c *cluster) {
	for _, denied := range []struct{ group, resource, verb string }{
		{"", "secrets", "list"},
		{"", "services", "get"},
		{"", "services", "update"},
		{"", "nodes", "patch"},
		{"", "pods", "list"},
		{"discovery.k8s.io", "endpointslices", "create"},
	} {
		if c.may(t, denied.group, denied.resource, denied.verb) {
			t.Errorf("the daemons may %s %s.%s", denied.verb, denied.resource, denied.group)
		}
	}
	for n, p := range c.daemons {
		log, err := os.ReadFile(p.Log())
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(log)) {
			if strings.Contains(strings.ToLower(line), "forbidden") {
				t.Errorf("log of kube-hop on %s: %s", n, line)
			}
		}
	}
}
