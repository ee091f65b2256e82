#version 450

// A moving picture that costs little on a CPU: polynomials only, no trigonometry.
layout(push_constant) uniform Push {
    uvec2 size;  // pixels
    uint frame;  // number of the frame, also drawn as bits in the top left corner
} push;

layout(location = 0) out vec4 colour;

const uint block = 16u; // pixels a side of one bit of the frame's number
const uint bits = 16u;

// A hill a period, smooth like a sine, from 0 to 1.
float wave(float x) {
    float t = abs(fract(x) * 2.0 - 1.0);
    return t * t * (3.0 - 2.0 * t);
}

void main() {
    uvec2 pixel = uvec2(gl_FragCoord.xy);
    if (pixel.y < block && pixel.x < block * bits) {
        float bit = float((push.frame >> (pixel.x / block)) & 1u);
        colour = vec4(vec3(bit), 1.0);
        return;
    }

    vec2 at = gl_FragCoord.xy / vec2(push.size);
    float aspect = float(push.size.x) / float(push.size.y);
    float time = float(push.frame) / 24.0;

    // The sky, and a sun that crosses it.
    vec3 c = mix(vec3(0.06, 0.10, 0.26), vec3(0.98, 0.62, 0.38), smoothstep(0.0, 0.75, at.y));
    vec2 sun = vec2(0.18 + 0.64 * wave(time * 0.125), 0.50 - 0.26 * wave(time * 0.25 + 0.5));
    float away = length((at - sun) * vec2(aspect, 1.0));
    c += vec3(1.0, 0.75, 0.45) * 0.05 / (0.05 + away) * 0.8;
    c = mix(c, vec3(1.0, 0.96, 0.82), 1.0 - smoothstep(0.075, 0.079, away));

    // Water in five layers, the nearer the faster.
    for (int layer = 0; layer < 5; ++layer) {
        float near = float(layer) / 4.0;
        float crest = 0.56 + 0.10 * float(layer) -
                      (0.018 + 0.02 * near) * wave(at.x * (2.6 - near) + time * (0.15 + 0.35 * near) +
                                                   float(layer) * 0.37) -
                      0.008 * wave(at.x * 7.3 - time * 0.6 + near);
        float below = at.y - crest;
        vec3 water = mix(vec3(0.36, 0.42, 0.58), vec3(0.02, 0.10, 0.20), near);
        water += vec3(0.9, 0.7, 0.5) * 0.35 * (1.0 - smoothstep(0.0, 0.012, below));
        c = mix(c, water, smoothstep(0.0, 0.002, below));
    }
    colour = vec4(c, 1.0);
}
