// SPDX-License-Identifier: MIT
// Adds up what up to three views hold of each pixel.
#version 450
layout(local_size_x = 1) in;
layout(set = 0, binding = 0) uniform sampler2D view_0;
layout(set = 0, binding = 1) uniform sampler2D view_1;
layout(set = 0, binding = 2) uniform sampler2D view_2;
layout(set = 0, binding = 3) writeonly buffer Pixels { vec4 pixels[]; };
layout(push_constant) uniform Push { uint views; };

void main() {
    const uvec2 at = gl_GlobalInvocationID.xy;
    const vec2 where = (vec2(at) + 0.5) / vec2(gl_NumWorkGroups.xy);
    vec4 sum = textureLod(view_0, where, 0);
    if (views > 1)
        sum += textureLod(view_1, where, 0);
    if (views > 2)
        sum += textureLod(view_2, where, 0);
    pixels[at.y * gl_NumWorkGroups.x + at.x] = sum;
}
