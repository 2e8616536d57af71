# A public mirror of Docker's official images, from which everybody can pull. docs/deploy.md says how to pin a digest.
variable "BASE_IMAGE" {
  default = "public.ecr.aws/docker/library/python:3.13-slim-trixie"
}

variable "TAG" {
  default = "dev"
}

variable "CA_FILE" {
  default = "" # PEM bundle for pip behind a TLS-inspecting proxy; mounted as a secret, so it is in no layer
}

group "default" {
  targets = ["authorizer", "websocket"]
}

group "rie" {
  targets = ["authorizer-rie", "websocket-rie"]
}

target "_image" {
  platforms = ["linux/amd64"] # or linux/arm64. Exactly one: Lambda refuses an image index. The stack sets the functions' architecture from this line
  contexts  = { base = "docker-image://${BASE_IMAGE}", scripts = "images/build" }
  attest    = ["type=provenance,disabled=true", "type=sbom,disabled=true"] # attestations would make an index, too
  args      = { SOURCE_DATE_EPOCH = "0" }
  secret    = CA_FILE == "" ? [] : ["id=ca,src=${CA_FILE}"]
}

target "function" {
  name       = fn
  matrix     = { fn = ["authorizer", "websocket"] }
  inherits   = ["_image"]
  context    = "images/${fn}"
  dockerfile = "../Dockerfile"
  target     = fn
  tags       = ["${fn}:${TAG}"]
}

# The function's own image plus the Lambda runtime interface emulator, to call the function with curl.
target "rie" {
  name       = "${fn}-rie"
  matrix     = { fn = ["authorizer", "websocket"] }
  inherits   = ["_image"]
  context    = "images/rie"
  contexts   = { function = "target:${fn}" }
  target     = fn
  tags       = ["${fn}:rie"]
}

# The function that the conformance pack calls.
target "probe" {
  inherits          = ["_image"]
  context           = "tests/conformance/images"
  contexts          = { function = "target:probe-function" }
  dockerfile-inline = <<EOT
FROM function
CMD ["probe.handler"]
EOT
  tags              = ["probe:${TAG}"]
}

target "probe-function" {
  inherits   = ["_image"]
  context    = "tests/conformance/images/probe"
  dockerfile = "../../../../images/Dockerfile"
  target     = "function"
}
