//! Draws pictures that look enough like photographs for a detector to behave: a shaded ground, soft blobs, boxes with
//! sharp edges, stripes, and a little grain. White noise would saturate a detector's scores, and a flat picture would
//! leave most of its weights unused.

use super::random::Random;

/// A picture of `channels` planes of `height` x `width`, values in 0..=1.
pub(crate) fn draw(random: &mut Random, channels: usize, height: usize, width: usize) -> Vec<f32> {
    let mut planes = vec![0f32; channels * height * width];
    if planes.is_empty() {
        return planes;
    }
    ground(random, &mut planes, height, width);
    for _ in 0..6 {
        blob(random, &mut planes, height, width);
    }
    for _ in 0..10 {
        rectangle(random, &mut planes, height, width);
    }
    for value in &mut planes {
        *value = (*value + (random.unit() - 0.5) * 0.03).clamp(0.0, 1.0);
    }
    planes
}

/// A plane that slopes in both directions, another slope for each channel.
fn ground(random: &mut Random, planes: &mut [f32], height: usize, width: usize) {
    for plane in planes.chunks_exact_mut(height * width) {
        let (base, down, across) = (random.between(0.2, 0.6), random.between(-0.3, 0.3), random.between(-0.3, 0.3));
        for (y, row) in plane.chunks_exact_mut(width).enumerate() {
            for (x, value) in row.iter_mut().enumerate() {
                *value = base + down * y as f32 / height as f32 + across * x as f32 / width as f32;
            }
        }
    }
}

/// A soft round spot that brightens or darkens.
fn blob(random: &mut Random, planes: &mut [f32], height: usize, width: usize) {
    let (cy, cx) = (random.unit() * height as f32, random.unit() * width as f32);
    let radius = random.between(0.05, 0.3) * height.min(width) as f32 + 1.0;
    let (top, left) = ((cy - radius).max(0.0) as usize, (cx - radius).max(0.0) as usize);
    let (bottom, right) = (((cy + radius) as usize + 1).min(height), ((cx + radius) as usize + 1).min(width));
    for plane in planes.chunks_exact_mut(height * width) {
        let strength = random.between(-0.5, 0.5);
        for (y, row) in plane.chunks_exact_mut(width).enumerate().take(bottom).skip(top) {
            let dy = (y as f32 - cy) / radius;
            for (x, value) in row.iter_mut().enumerate().take(right).skip(left) {
                let dx = (x as f32 - cx) / radius;
                let inside = (1.0 - dx * dx - dy * dy).max(0.0);
                *value += strength * inside * inside;
            }
        }
    }
}

/// A box with sharp edges, plain or striped, partly covering what is there.
fn rectangle(random: &mut Random, planes: &mut [f32], height: usize, width: usize) {
    let tall = 1 + (random.between(0.04, 0.45) * height as f32) as usize;
    let wide = 1 + (random.between(0.04, 0.45) * width as f32) as usize;
    let (top, left) = (random.below(height), random.below(width));
    let period = 4 + random.below(16);
    let striped = random.below(3) == 0;
    let cover = random.between(0.6, 1.0);
    for plane in planes.chunks_exact_mut(height * width) {
        let (colour, other) = (random.unit(), random.unit());
        for row in plane.chunks_exact_mut(width).skip(top).take(tall) {
            for (x, value) in row.iter_mut().enumerate().skip(left).take(wide) {
                let colour = if striped && (x / period) % 2 == 1 { other } else { colour };
                *value += cover * (colour - *value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_structure_and_is_the_same_again() {
        let picture = draw(&mut Random::new(1, "images"), 3, 64, 80);
        assert_eq!(picture, draw(&mut Random::new(1, "images"), 3, 64, 80));
        assert_ne!(picture, draw(&mut Random::new(2, "images"), 3, 64, 80));
        assert!(picture.iter().all(|x| (0.0..=1.0).contains(x)));
        let mean = picture.iter().sum::<f32>() / picture.len() as f32;
        let deviation = (picture.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / picture.len() as f32).sqrt();
        // Neighbours are alike, the picture as a whole is not.
        let step: f32 = picture.windows(2).map(|w| (w[1] - w[0]).abs()).sum::<f32>() / picture.len() as f32;
        assert!(deviation > 0.1 && step < deviation / 2.0, "{deviation} {step}");
    }

    #[test]
    fn tiny_pictures_are_drawn_too() {
        assert_eq!(draw(&mut Random::new(1, ""), 1, 1, 1).len(), 1);
        assert!(draw(&mut Random::new(1, ""), 0, 5, 5).is_empty());
    }
}
