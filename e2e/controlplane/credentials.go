package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const (
	certFile         = "apiserver.crt"
	keyFile          = "apiserver.key"
	accountKeyFile   = "service-account.key"
	tokenFile        = "tokens.csv"
	certName         = "kubernetes.default.svc" // every client may use it, whatever the address it dials
	accountIssuerURL = "https://" + certName
)

// credentials are what the API server and its clients prove themselves with.
type credentials struct {
	cert       []byte // PEM; self-signed, so it is its own CA
	key        []byte // PEM
	accountKey []byte // PEM; signs ServiceAccount tokens
	token      string // bearer token of a member of system:masters
}

// newCredentials makes new keys, a certificate for the addresses, and a token.
func newCredentials(addrs []netip.Addr) (credentials, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return credentials{}, err
	}
	_, accountKey, err := newKey()
	if err != nil {
		return credentials{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "kube-hop test API server"},
		// Fixed, and wide: an emulated machine may have any clock.
		NotBefore:             time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost", "kubernetes", "kubernetes.default", certName},
	}
	for _, addr := range addrs {
		template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return credentials{}, fmt.Errorf("create API server certificate: %w", err)
	}
	return credentials{
		cert:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:        keyPEM,
		accountKey: accountKey,
		token:      rand.Text(),
	}, nil
}

// newKey makes an ECDSA key: an RSA key of equal strength takes seconds on an emulated CPU. The PEM block is
// not the more usual PKCS #8: the API server does not find the public half of a ServiceAccount key in that.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// write puts the files that credentialArgs names into dir.
func (c credentials) write(dir string) error {
	for name, content := range map[string][]byte{
		certFile:       c.cert,
		keyFile:        c.key,
		accountKeyFile: c.accountKey,
		tokenFile:      []byte(c.token + ",kube-hop-test,0,system:masters\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("write API server credentials: %w", err)
		}
	}
	return nil
}

func credentialArgs() []string {
	return []string{
		"--tls-cert-file=" + certFile,
		"--tls-private-key-file=" + keyFile,
		"--token-auth-file=" + tokenFile,
		"--service-account-issuer=" + accountIssuerURL,
		"--service-account-key-file=" + accountKeyFile,
		"--service-account-signing-key-file=" + accountKeyFile,
	}
}
